"""How often, where and when a small model needs a large one, which routers tell it, and by what law."""

from ventris.study.record import Pair, StudyReport
from ventris.study.run import Study, run_study, study
from ventris.study.settings import StudySettings, read_settings
from ventris.study.small_models import SmallModel, load_small

__all__ = [
    "Pair",
    "SmallModel",
    "Study",
    "StudyReport",
    "StudySettings",
    "load_small",
    "read_settings",
    "run_study",
    "study",
]
