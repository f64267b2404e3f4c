"""How often, where and when a small model needs a large one, which routers tell it, and by what law."""
