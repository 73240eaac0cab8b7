"""A stand-in for the service that the survival tests kill: runs one plan and says each record on stdout."""

import asyncio
import json
import sys
from pathlib import Path

from runyard.host.attempt_directory import AttemptDirectory
from runyard.host.plan import Plan
from runyard.host.runner import AttemptRunner
from runyard.host.zygote_client import Zygote


async def main(plan: Plan, folder: str, stage: str) -> None:
    zygote = Zygote(stage=stage or None, cgroups=plan.cgroups)
    await zygote.start()

    print(json.dumps({"what": "zygote", "pid": zygote.pid}), flush=True)

    async def say(record: dict) -> None:
        print(json.dumps(record), flush=True)

    await AttemptRunner(zygote).run(AttemptDirectory(Path(folder) / plan.name), lambda: plan, say)


if __name__ == "__main__":
    plan_file, *rest = sys.argv[1:]
    asyncio.run(main(Plan.from_json(Path(plan_file).read_text()), *rest))
