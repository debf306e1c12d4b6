"""What the user wrote: text, model, problems."""

import os

# Looking for plugins of others costs pydantic 12 ms at each start, and nobody else's code has a say
# in how a spec is read.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
