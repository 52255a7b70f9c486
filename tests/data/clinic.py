"""Small tables, as text and as columns, shared by the tests of tables."""

import numpy as np

from persim_jax.data.from_table import load_table
from persim_jax.data.tables import Columns

GOOD = """agent,time,state_x,state_y,action,input_meal,covariate_weight,reward
ann,0,1.5,10,up,0,70,1
bob,0,2,20,down,3,80,2
ann,1,1.75,11,down,2,70,3
ann,2,2,12,up,0,70,5
ann,9,7,13,down,1,70,7
ann,10,8,14,,,70,
bob,1,3,21,up,5,80,4
bob,2,5,22,,,80,
"""


def dataset_of(tmp_path, text, columns=Columns(), **options):  # noqa: B008
    path = tmp_path / "clinic.csv"
    path.write_text(text)
    return load_table(path, columns, **options)


def table_of(action, **others):
    """Two agents of four rows each."""
    columns = {
        "agent": np.repeat(["a", "b"], 4), "time": np.tile(np.arange(4.0), 2),
        "state": np.arange(8.0) ** 2, "action": np.asarray(action),
    }  # fmt: skip
    return columns | others
