// Submit a run with nothing but Node.js, to a server that takes unsigned requests such as ElasticMQ:
//   node sqs.mjs http://localhost:9324/000000000000/shop-reports k8s acme
// On AWS the SDK signs: give the same envelope as MessageBody, and the same attribute, to its SendMessageCommand.
const [queueUrl, topic, tenant] = process.argv.slice(2);

const message = new URLSearchParams({
  Action: "SendMessage",
  Version: "2012-11-05",
  MessageBody: JSON.stringify({ task: "report", args: { topic }, delay_s: 5, tags: { from: "node" } }),
  "MessageAttribute.1.Name": "tenant",
  "MessageAttribute.1.Value.DataType": "String",
  "MessageAttribute.1.Value.StringValue": tenant,
});
const reply = await fetch(queueUrl, { method: "POST", body: message });
console.log(await reply.text());
process.exitCode = reply.ok ? 0 : 1;
