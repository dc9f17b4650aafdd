from tests.worlds.object_stores import moto  # noqa: F401
