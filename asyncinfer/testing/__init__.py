"""Does an engine keep its promises? A conformance suite for engines: ours, and yours.

::

    from asyncinfer.testing import check_engine

    async def test_my_engine():  # under asyncio or trio, in pytest or in a script
        print(await check_engine(MyEngine))

`check_engine` runs every check of `CHECKS` and gives a `Report`; what an engine does wrong is raised as one
`ConformanceError` that names each check and what was seen. A check that does not apply to an engine (it does not claim
the parameter, the caller did not say what it needs to know) is listed with its reason. What the engine is asked, and
what the suite may assume of its answers, is in `Expectations`; `EMBEDDED` are those of the model that comes with the
package. Each check can be called by itself::

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    async def test_my_engine(check, my_engine):
        await check(my_engine, prompts=("Say one.", "Say two."))

Rule of the room: a surface. It knows engines by their public face alone, so it treats all of them alike.
"""

from .expectations import EMBEDDED, Expectations
from .suite import CHECKS, Check, check_engine
from .verdict import ConformanceError, Report, Result, Stalls

__all__ = [
    "CHECKS",
    "EMBEDDED",
    "Check",
    "ConformanceError",
    "Expectations",
    "Report",
    "Result",
    "Stalls",
    "check_engine",
]
