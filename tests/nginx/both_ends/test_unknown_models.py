from tests.nginx.test_unknown_models import *  # noqa: F403 - with the gateway of this directory
