from tests.nginx.test_cors import *  # noqa: F403 - with the gateway of this directory
