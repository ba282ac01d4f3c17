from tests.e2e.conftest import host

__all__ = ["host"]
