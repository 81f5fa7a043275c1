"""What the verbs results, baselines and verify print."""

import argparse
import pathlib

from genbench.errors import explained_disk_errors


@explained_disk_errors()
def results(given: argparse.Namespace) -> int:
    from genbench.studies import formats, tables

    suffix = pathlib.Path(given.out).suffix
    name = given.format or formats.SUFFIXES.get(suffix, 'table')
    table = tables.build(given.folders, where=given.where, metrics=[part for part in given.metric.split(',') if part],
                         pivot=given.pivot, baseline=given.baseline, across=given.across_protocols)  # fmt: skip
    written = formats.FORMATS[name](table)
    if not given.out:
        print(written.rstrip('\n'))
        return 0
    from genbench.training.files import write_atomically  # numpy

    write_atomically(pathlib.Path(given.out), written.rstrip('\n') + '\n')
    print(f'{given.out}: {len(table.lines)} lines')
    return 0
