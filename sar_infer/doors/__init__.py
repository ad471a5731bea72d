"""Routes that speak as other services do, for clients that people already have; one file for each service.

A door is a router with the paths, errors and key header of its service. ``server.asking.ask`` answers for all of them.
"""

from __future__ import annotations

from sar_infer.doors import custom_vision, hugging_face, open_inference, photoprism
from sar_infer.server import openapi

openapi.describe_answers(__name__)
DOORS = {door.name: door for door in (each.DOOR for each in (custom_vision, hugging_face, open_inference, photoprism))}
"""All doors by their names."""
