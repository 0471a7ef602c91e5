"""How soon answers begin under different ways to choose a model server: simulated pods behind the real gateway.

scenarios     what is asked of which pods
workload      the sessions of a scenario, all of them from one seed
policies      the ways to choose, as resources
measure       one scenario under one policy with one seed, from start to end
pods          the simulated pods, in a process of their own
load          sessions against the gateway, in a process of their own
shares        what the processors did meanwhile, and whether that was too much
figures       what is taken from the requests of a run
results       the runs so far, in a file
comparison    runs of policies beside each other, and the bars
"""
