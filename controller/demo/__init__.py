"""The demo: a gateway with two pools of model servers, four scenes to try, and a check that plays them.

    ports         ports of this machine: one for the gateway, one for each model server
    servers       the model servers: llama.cpp in processes of their own, simulated ones in this event loop
    llama_cpp     the program in such a process
    files         the YAML of the demo; its text is in resources/
    guide         what the terminal shows: where everything is, and a command for each scene
    client        a client that says which pool and pod served
    scenes        the scenes, played
    judge         what was asked, expected and seen of each, without input or output

The gateway itself is that of `infergate run`: `controller.commands.demo` puts them together.
"""
