"""The plugin's logger, under LiveKit's name for plugins."""

import logging

logger = logging.getLogger("livekit.plugins.nemotron")
