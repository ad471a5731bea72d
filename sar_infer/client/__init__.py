"""Clients of ``sar-serve`` with the methods of a ``Classifier``; they need the extra ``client``.

::

    from sar_infer import Client

    with Client("http://localhost:8000") as client:
        for result in client.classify(["cat.jpg", "cup.png"], classes=["espresso", "tabby cat"]):
            print(result.image, result.predictions[0].label)

``calls`` builds requests and reads answers, as steps that wait for nothing; ``client`` and ``async_client`` do the
waiting. httpx2 is imported when a client is made, Pillow and numpy when a PIL image or an array is passed in.
"""

from sar_infer.client.answers import ClassEntry, ClassList, PhotoFinding, PhotosAdded
from sar_infer.client.async_client import AsyncClient
from sar_infer.client.client import Client
from sar_infer.errors import ServerError

__all__ = ["AsyncClient", "ClassEntry", "ClassList", "Client", "PhotoFinding", "PhotosAdded", "ServerError"]
