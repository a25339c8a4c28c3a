"""`atcp demo`: several peers, each a process of its own, train one model together on this machine."""

from federated.demo.run import DemoError, DemoSettings, run_demo

__all__ = ["DemoError", "DemoSettings", "run_demo"]
