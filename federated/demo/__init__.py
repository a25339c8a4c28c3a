"""`atcp demo`: several peers, each a process of its own, train one model together on this machine."""
