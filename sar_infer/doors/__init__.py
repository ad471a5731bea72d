"""Routes that speak as other services do, for clients that people already have; one file for each service.

A door is a router with the paths, errors and key header of its service. ``server.asking.ask`` answers for all of them.
"""

from __future__ import annotations

from sar_infer.doors import hugging_face, open_inference
from sar_infer.server import openapi

openapi.describe_answers(__name__)
DOORS = {door.name: door for door in (hugging_face.DOOR, open_inference.DOOR)}
"""All doors by their names."""
