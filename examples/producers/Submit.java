// Submit a run through Kafka with its plain client, no AgentQ:
//   java -cp 'kafka-clients.jar:slf4j-api.jar:…' Submit.java localhost:9092 shop.reports '{"topic": "k8s"}' acme

import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class Submit {
    public static void main(String[] words) throws Exception {
        String servers = words[0], topic = words[1], args = words[2], tenant = words[3];
        String envelope = "{\"v\": 1, \"task\": \"report\", \"args\": " + args + ", \"priority\": 5}";
        try (var producer = new KafkaProducer<>(Map.of("bootstrap.servers", servers), new StringSerializer(), new StringSerializer())) {
            var record = new ProducerRecord<>(topic, tenant, envelope); // one tenant, one partition
            record.headers().add("tenant", tenant.getBytes("UTF-8"));
            var sent = producer.send(record).get(); // waits until the servers have it
            System.out.println(sent.topic() + " " + sent.partition() + " " + sent.offset());
        }
    }
}
