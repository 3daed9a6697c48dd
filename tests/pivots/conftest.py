"""A profile of six trajectories under the embedded checkpoint, made once."""

import pytest
from support import profiles


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The work directory of a finished find_pivots."""
    workdir = tmp_path_factory.mktemp("profile") / "whole"
    profiles.find_pivots(workdir)
    return workdir


@pytest.fixture(scope="session")
def adaptive_whole(tmp_path_factory):
    """The same with adaptive profiling: two samples a round."""
    workdir = tmp_path_factory.mktemp("profile") / "adaptive"
    profiles.find_pivots(workdir, **profiles.ADAPTIVE)
    return workdir
