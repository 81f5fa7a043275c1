"""The pages in docs/families: one for each family, naming only what exists, with the costs that the programs have."""

import functools
import itertools
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shipped

from genbench import cli, families, flops
from genbench import config as configs
from genbench.data.spec import DataSpec
from genbench.evaluation import grid
from genbench.families.base import Borrowed
from genbench.training import samplers
from genbench.training.state import Blueprint

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'docs' / 'families'
PAGES = sorted(path.stem for path in FOLDER.glob('*.md') if path.stem != 'README')
SPAN, KEY = re.compile(r'`([^`\n]+)`'), re.compile(r'(?:family|network|train|optimizer|evaluation|data)(?:\.\w+)+')
LINK = re.compile(r'\]\(([\w./-]*)(?:#([\w-]+))?\)')
DIGITS = DataSpec('digits', (8, 8, 1), levels=17, classes=10)
BATCH = 8
OVERRIDES = (f'train.batch_size={BATCH}', 'evaluation.dequantisation_draws=4', 'evaluation.iwae_draws=4')
every_page = pytest.mark.parametrize('page', PAGES)


@functools.cache
def text(page):
    return (FOLDER / f'{page}.md').read_text()


def family_of(page):
    return re.search(r'`family\.name=(\w+)`', text(page)).group(1)


def table(page, *heading):
    """The cells of the rows of all tables whose heading begins with these words."""
    found = []
    for block in re.findall(r'(?:^\|.*\|\n)+', text(page), re.MULTILINE):
        first, _, *rows = ([cell.strip() for cell in line.strip('|').split('|')] for line in block.splitlines())
        found += rows if first[: len(heading)] == [*heading] else []
    return found


def choices(page):
    """Configs of the family, with each network that the page names and last with its own."""
    named = [{'name': name} for name in re.findall(r'`network\.name=(\w+)`', text(page))]
    return [configs.resolve({'family': {'name': family_of(page)}, 'network': network}) for network in (*named, {})]


def values(page):
    """{key: default} of the family's config, with the keys of the other networks that the page names."""
    return {key: value for config in choices(page) for key, value in configs.flatten(config)}


@functools.cache
def on_digits(page):
    """The family of the page's config, and families of the shipped configs that it borrows from."""
    config = configs.load(str(ROOT / 'configs' / 'digits' / f'{page}.py'), OVERRIDES)
    cls = families.get(config.family.name)
    lent = {key: Borrowed(on_digits(run.removeprefix('runs/'))) for key, run in cls.borrows(config).items()}
    return cls(config, DIGITS, lent)


def test_every_family_has_a_page_and_the_table_has_every_page():
    assert set(shipped.NAMES) <= {name for name in PAGES if name == family_of(name)}
    rows = [row[0] for kind in ('family', 'option') for row in table('README', kind)]
    assert sorted(re.findall(r'\((\w+)\.md\)', ''.join(rows))) == PAGES


@every_page
def test_a_page_names_keys_that_exist_and_values_that_they_take(page):
    known = {**values(page), 'family.name': '', 'network.name': ''}
    for span in SPAN.findall(text(page)):
        key, _, value = span.partition('=')
        if KEY.fullmatch(key):
            assert key in known, f'{page}: {span}'
            if value:
                fitting = [config for config in choices(page) if key in dict(configs.flatten(config))]
                network = {'name': fitting[-1].network.name}
                configs.resolve({'family': {'name': family_of(page)}, 'network': network}, [span])


@every_page
def test_defaults_in_tables_are_those_of_the_code(page):
    known, rows = values(page), table(page, 'key', 'default')
    assert rows
    for key, default, *_ in rows:
        real = known[key.strip('`')]
        assert default.strip('`') == (str(real) if real not in ('', ()) else ''), f'{page}: {key} is {real!r}'


@every_page
def test_samplers_are_the_familys(page):
    (listed,) = re.findall(r'\*\*Samplers:\*\*((?:\s+`\w+`,?)+)', text(page))
    known, named = on_digits(page).samplers, SPAN.findall(listed)
    assert set(named) == set(known) if page == family_of(page) else set(named) < set(known)
    for span in SPAN.findall(text(page)):
        if ':' in span and span.partition(':')[0] in known:
            samplers.parse(span, on_digits(page))


@every_page
def test_likelihoods_are_the_familys_with_their_kinds(page):
    listed = {(name, kind) for names, kind, *_ in table(page, 'likelihood', 'kind') for name in SPAN.findall(names)}
    real = {(one.method.replace('_4', '_K'), one.kind.replace('_', ' ')) for one in on_digits(page).likelihoods}
    assert listed == real
    assert bool(listed) != bool(re.search(r'^There is no likelihood[.:]', text(page), re.MULTILINE))


@every_page
def test_commands_name_configs_and_overrides_that_resolve(page):
    lines = [line for block in re.findall(r'```sh\n(.*?)```', text(page), re.DOTALL)
             for line in block.replace('\\\n', ' ').splitlines()]  # fmt: skip
    assert lines
    for line in lines:
        words = shlex.split(line)
        told, others = cli.parser().parse_known_args(words[1:])
        assert all(word.startswith('--config.') for word in others), f'{page}: {others}'
        if getattr(told, 'sampler', None):
            samplers.parse(told.sampler, on_digits(page))
        overrides = [word.removeprefix('--config.') for word in words if word.startswith('--config.')]
        if words[:2] == ['genbench', 'train']:
            (path,) = (word.removeprefix('--config=') for word in words if word.startswith('--config='))
            config = configs.load(str(ROOT / path), overrides)
            cls = families.get(config.family.name)
            if path.startswith('configs/digits') and not cls.borrows(config):
                cls(config, DIGITS)  # says whether the keys go together
        else:
            assert words[:2] in (['genbench', 'evaluate'], ['genbench', 'sample'])
            config = configs.resolve({'family': {'name': family_of(page)}}, overrides)
            axes = [word for before, word in itertools.pairwise(words) if before == '--grid']
            grid.cells(axes, on_digits(page), config.evaluation)


@pytest.mark.parametrize('page', [*PAGES, 'README'])
def test_links_lead_to_files_and_headings(page):
    for target, heading in LINK.findall(text(page)):
        found = FOLDER / (target or f'{page}.md')
        assert found.exists(), f'{page} points to {target}'
        headings = re.findall(r'^#+ (.*)$', found.read_text(), re.MULTILINE) if heading else []
        slugs = {re.sub(r'[^\w\- ]', '', one.lower()).replace(' ', '-') for one in headings}
        assert not heading or heading in slugs, f'{page} points to {target}#{heading}'


def numbers(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def work(function, *arguments):
    return flops.count(jax.make_jaxpr(function)(*arguments))


@every_page
def test_costs_in_the_table_are_those_of_the_programs(page):
    """Of the losses and gradients of a step, in evaluations of the default sampler; and of the state, in parameters."""
    (row,) = (row for kind in ('family', 'option') for row in table('README', kind) if f'({page}.md)' in row[0])
    family, blueprint = on_digits(page), Blueprint(on_digits(page))
    if not family.averages:
        assert row[2:4] == ['', '']
        return
    state, lent = blueprint.shapes, blueprint.lent_shapes
    array = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct((BATCH, *shape), dtype)  # noqa: E731
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BATCH))
    prepared = jax.eval_shape(
        lambda rows, lent: family.prepare(blueprint.lenders(lent), rows),
        {'image': array(*DIGITS.shape, dtype=jnp.int32), 'label': array(dtype=jnp.int32), 'key': keys}, lent,
    )  # fmt: skip
    batch = {'image': array(*DIGITS.shape, dtype=jnp.int32), 'label': array(dtype=jnp.int32), 'key': keys, **prepared}

    def step(update, state, lent, batch):
        def loss(moved, aux):
            networks = blueprint.bind({**state['params'], **moved}, aux, state['averages'], lent)
            return update.loss(networks, batch, jax.random.key(0), jnp.zeros((), int))[0], blueprint.aux(networks)

        moved = {name: state['params'][name] for name in update.networks}
        return jax.value_and_grad(loss, has_aux=True)(moved, state['aux'])

    def sample(state, lent, keys):
        networks = blueprint.bind(state['params'], state['aux'], lent=lent)
        given = {name: form.null(BATCH) for name, form in family.forms.items()} or None
        return family.sample(networks, keys, given, sampler).images

    sampler = samplers.parse(f'{family.samplers[0]}:1', family)
    one = work(sample, state, lent, keys) / family.evaluations(sampler)
    steps = sum(work(functools.partial(step, update), state, lent, batch) for update in family.updates)
    borrowed = [run['params'] for run in lent.values()]
    held = numbers([state['params'], state['opt'], state['averages'], borrowed])
    trained = numbers([state['params'][name] for name in {name for one in family.updates for name in one.networks}])
    assert row[2:4] == [f'{steps / one:.1f}', f'{held / trained:.1f}']
