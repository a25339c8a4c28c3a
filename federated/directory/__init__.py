"""The directory of tasks: signed manifests, announced on a topic, kept in the DHT.

Read `signed` (a task and who published it) and `head` (its newest certificate) first, then `wire` and `table`
(what is said about tasks, and what is known), `validators` (the DHT's rules) and `driver`.
"""
