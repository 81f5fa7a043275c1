"""What SLURM says about jobs, in words."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

ASK_SECONDS = 20
ACTIVE = ('RUNNING', 'COMPLETING', 'CONFIGURING', 'STAGE_OUT', 'SIGNALING')
WAITING = ('PENDING', 'REQUEUED', 'REQUEUE_HOLD', 'REQUEUE_FED', 'SPECIAL_EXIT', 'SUSPENDED', 'STOPPED', 'PREEMPTED')
_PENDING = {
    'Resources': 'waits for free resources',
    'Priority': 'waits behind jobs of higher priority',
    'Dependency': 'waits for the trials it builds on',
    'DependencyNeverSatisfied': 'waits for a trial that failed, and will never start',
    'BeginTime': 'was requeued and will start again soon',
    'JobHeldUser': 'is held; release it with: scontrol release {job}',
    'JobHeldAdmin': 'is held by an administrator',
    'JobArrayTaskLimit': 'waits for other trials of its array',
    'PartitionDown': 'waits for its partition, which is down',
    'PartitionInactive': 'waits for its partition, which is inactive',
    'PartitionNodeLimit': 'needs more nodes than its partition allows',
    'PartitionTimeLimit': 'needs more time than its partition allows',
    'ReqNodeNotAvail': 'waits for nodes that are not available',
    'Licenses': 'waits for a licence',
    'launch failed requeued held': 'could not start on its node and is held; release it with: scontrol release {job}',
    'None': 'was just submitted',
}
_ENDED = {
    'CANCELLED': 'its job was cancelled',
    'TIMEOUT': 'its job reached its time limit; raise it with --time',
    'OUT_OF_MEMORY': 'its job ran out of memory; ask for more with --slurm mem=…',
    'NODE_FAIL': 'a node of its job failed',
    'BOOT_FAIL': 'a node of its job failed to boot',
    'DEADLINE': 'its job missed its deadline',
    'FAILED': 'its job failed',
    'COMPLETED': 'its job ended before the trial was finished',
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of squeue: a job's state, and the reason for it."""

    state: str
    reason: str


def read() -> dict[str, Entry] | None:
    """The user's jobs by number, NUMBER or ARRAY_INDEX; None if SLURM does not answer."""
    if shutil.which('squeue') is None:
        return None
    command = ['squeue', '--noheader', '--array', '--states=all', f'--user={os.getuid()}', '--format=%i|%T|%r']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    parts = [line.strip().split('|', 2) for line in done.stdout.splitlines()]
    return {job: Entry(name, reason) for job, name, reason in (part for part in parts if len(part) == 3)}


def holds(entry: Entry | None) -> bool:
    """Whether the cluster runs a job or is going to. squeue also lists ended jobs for a while."""
    return entry is not None and entry.state in ACTIVE + WAITING and entry.reason != 'DependencyNeverSatisfied'


def waiting(job: str, entry: Entry) -> str:
    """Why a job is not running yet, including SLURM's own word."""
    key = entry.reason.strip('()').split(',')[0]
    known = _PENDING.get(key, 'waits').format(job=job)
    return f'{known} (SLURM: {entry.reason})'


def judge(status: Mapping[str, Any], jobs: Mapping[str, Entry]) -> dict[str, Any]:
    """Changes to a trial's status in matters that the cluster knows better."""
    job = status['job'].partition(':')[2]
    entry = jobs.get(job)
    if entry is None:
        return {'state': 'failed', 'reason': 'SLURM no longer knows its job; ' + _again(status)}
    if entry.state in ACTIVE:
        return {}
    if entry.state in WAITING:
        if entry.reason == 'DependencyNeverSatisfied':
            return {'state': 'failed', 'reason': waiting(job, entry)}
        return {'reason': waiting(job, entry), **({'state': 'preempted'} if status['state'] == 'running' else {})}
    said = _ENDED.get(entry.state, f'its job ended as {entry.state}')
    return {'state': 'failed', 'phase': '', 'reason': f'{said}; {_again(status)}'}


def _again(status: Mapping[str, Any]) -> str:
    where = f'continue from step {status["step"]}' if status['step'] else 'start over'
    return f'run the study again to {where}'
