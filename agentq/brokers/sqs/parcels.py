"""Arguments that are too large for a message, kept in an S3 bucket under a name that their content determines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from agentq.brokers.sqs.errors import Refused
from agentq.errors import BrokerError, NotFound

if TYPE_CHECKING:
    from agentq.brokers.sqs.client import Clients

_GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_KEY: Final = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})")


class S3Parcels:
    """Fulfils `agentq.brokers.base.Parcels`. Written again, a parcel is the same object; the bucket's lifecycle deletes it."""

    def __init__(self, clients: Clients, bucket: str, prefix: str) -> None:
        """Use ``bucket``, and of it only keys that begin with ``prefix``, which is empty or ends in a slash."""
        self._clients = clients
        self._bucket = bucket
        self._prefix = prefix

    @property
    def where(self) -> str:
        """Where they are, for people."""
        return f"s3://{self._bucket}/{self._prefix}"

    async def put(self, sha256: str, data: bytes) -> str:
        """Keep ``data``; its place.

        Raises:
            BrokerUnavailable: S3 cannot be reached for now.
            BrokerError: S3 refused.

        """
        key = f"{self._prefix}{sha256[:2]}/{sha256}"
        place = f"s3://{self._bucket}/{key}"
        content = {"Body": data, "ContentType": "application/json"}
        await self._clients.call("put_object", place, kind="s3", Bucket=self._bucket, Key=key, **content)
        return place

    async def get(self, place: str) -> bytes:
        """What lies at a ``place`` that `put` answered; anything else is refused without a request.

        Raises:
            NotFound: nothing lies there any more.
            BrokerUnavailable: S3 cannot be reached for now.
            BrokerError: it is no place of ours, or S3 refused.

        """
        own = f"s3://{self._bucket}/{self._prefix}"
        if not (place.startswith(own) and _KEY.fullmatch(place[len(own) :])):
            raise BrokerError(f"{place[:200]!r} is no payload of ours; they lie at {own}…")
        key = place.removeprefix(f"s3://{self._bucket}/")

        async def read(client: Any) -> bytes:
            answer = await client.get_object(Bucket=self._bucket, Key=key)
            async with answer["Body"] as body:
                data: bytes = await body.read()
            return data

        try:
            return await self._clients.run("s3", read, "get_object", place)
        except Refused as error:
            if error.code in _GONE:
                raise NotFound(f"nothing lies at {place} any more; submit the run again") from error
            raise
