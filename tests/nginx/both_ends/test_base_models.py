from tests.nginx.test_base_models import *  # noqa: F403 - with the gateway of this directory
