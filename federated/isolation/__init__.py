"""The plugins that work with a peer's data, in a process of their own for each task.

    a thread of the peer                        the plugin process: python -m federated.isolation
    RemoteLearner ── request ──→ socket ──→ serve ──→ LocalLearner ──→ load, init, train, evaluate
          ↑ PluginError ←──────── reply ────────┘          ↑
          └── stop, steps: a page of shared memory ────────┘   should_stop

Whatever becomes of that process, by an endless loop, by too much memory, by a crash, the peer has lost one
answer: it ends what is left of the process, and starts another one when there is work again. All that has
to last is in the peer. What holds the process: `federated.isolation.limits`.
"""
