"""Small synthetic releases of datasets, exactly in the layout of the real ones.

Every `write_*` writes one release below a folder and gives a `Truth` of what is in it. The media
are real files made with ffmpeg and espeak-ng; where these are missing a RuntimeError says so, and
`require_tools()` asks beforehand. The same arguments give the same bytes.
"""

from mmtool.testing.layouts.ave import write_ave as write_ave
from mmtool.testing.layouts.bad_inputs import write_bad_inputs as write_bad_inputs
from mmtool.testing.layouts.crawled import Cues as Cues
from mmtool.testing.layouts.cremad import write_cremad as write_cremad
from mmtool.testing.layouts.encode import require_tools as require_tools
from mmtool.testing.layouts.iemocap import write_iemocap as write_iemocap
from mmtool.testing.layouts.kinetics_sounds import write_kinetics_sounds as write_kinetics_sounds
from mmtool.testing.layouts.meld import write_meld as write_meld
from mmtool.testing.layouts.mustard import write_mustard as write_mustard
from mmtool.testing.layouts.truth import Defect as Defect
from mmtool.testing.layouts.truth import Truth as Truth
from mmtool.testing.layouts.ucf101 import write_ucf101 as write_ucf101
from mmtool.testing.layouts.vggsound import write_vggsound as write_vggsound
