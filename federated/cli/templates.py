"""The files that `atcp plugin new` writes: a task that trains as it is."""

from __future__ import annotations

from string import Template

SETUP = Template("""\
[metadata]
name = atcp-$name
version = 0.1.0

[options]
py_modules = $module
install_requires =
    atcp
    scikit-learn

[options.entry_points]
federated.plugins =
    $name = $module:$class_name
""")

PYPROJECT = Template("""\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"
""")

MODULE = Template('''\
"""A task: which wine is it? Change the data in `load`, the model in `init`, `train` and `evaluate`."""

import numpy as np
from sklearn.datasets import load_wine

from federated.plugin import TaskPlugin, TrainResult
from plugins.preprocessing.dealing import deal


class $class_name(TaskPlugin):
    def load(self, context):
        x, y = load_wine(return_X_y=True)
        return deal((x - x.mean(0)) / x.std(0), y, context)

    def init(self, seed):
        return {"weight": np.zeros((13, 3), np.float32)}

    def train(self, parameters, data, context):
        (x, y), weight = data, parameters["weight"]
        for _ in range(20):
            scores = np.exp(x @ weight)
            weight = weight - 0.5 * x.T @ (scores / scores.sum(1, keepdims=True) - np.eye(3)[y]) / len(x)
        return TrainResult(parameters={"weight": weight.astype(np.float32)}, examples=len(x))

    def evaluate(self, parameters, data):
        x, y = data
        return {"accuracy": float(np.mean((x @ parameters["weight"]).argmax(1) == y))}
''')

TEST = Template('''\
"""Does the task learn? Without a network: `atcp run $name` has one."""

from federated.trial import try_out


def test_four_members_learn_together():
    first, *_, last = try_out("$name", members=4, rounds=5)
    assert last["accuracy"] > 0.8
''')
