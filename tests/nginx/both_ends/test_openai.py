from tests.nginx.test_openai import *  # noqa: F403 - with the gateway of this directory
