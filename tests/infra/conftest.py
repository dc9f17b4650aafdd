from object_stores import moto  # noqa: F401
