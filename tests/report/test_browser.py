"""The page in a real browser: sort, choose, slide, by mouse and keyboard, on a desk and a phone, in light and dark."""

import os
import re
import shutil

import pytest

from genbench.report import page

playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed (genbench[test])')
CHROMIUM = shutil.which('chromium')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='there is no chromium on the path (apt-get install chromium)')


@pytest.fixture(scope='module')
def report(make_study, tmp_path_factory):
    return page.write(make_study(tmp_path_factory.mktemp('browsed')))


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as started:
        arguments = ['--no-sandbox'] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, report):
    """`visit(width=1280, scheme='light')` → the opened page; what it complains of fails the test at the end."""
    said, contexts = [], []

    def open_page(width=1280, scheme='light'):
        context = browser.new_context(viewport={'width': width, 'height': 800}, color_scheme=scheme, offline=True)
        contexts.append(context)
        tab = context.new_page()
        tab.on('console', lambda message: said.append(message.text) if message.type in ('error', 'warning') else None)
        tab.on('pageerror', lambda error: said.append(str(error)))
        tab.goto(report.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def order(tab):
    """The names of the rows of the leaderboard."""
    return [re.sub(r'(direct|ddim).*', '', text).strip() for text in tab.locator('.board tbody th').all_inner_texts()]


def drawn(tab, cost):
    """The figure against a cost, when it is drawn."""
    place = tab.locator(f'.chart[data-cost={cost}]')
    place.scroll_into_view_if_needed()
    tab.wait_for_function('place => place.dataset.drawn', arg=place.element_handle())
    return place


def symbols(place):
    """Marks of points in a figure, not those of its whiskers and lines."""
    return place.locator('.mark-symbol path').count()


def brightness(tab, strip):
    """Of the first pixel of a strip of the explorer."""
    look = """canvas => {
        const copy = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        return copy.getImageData(0, 0, 1, 1).data[0];
    }"""
    return tab.locator(f'#strip-{strip} canvas').evaluate(look)


def until(tab, strip, value):
    """Wait for a strip to be as bright as this."""
    for _ in range(50):
        if brightness(tab, strip) == value:
            return
        tab.wait_for_timeout(40)
    assert brightness(tab, strip) == value


def test_a_heading_sorts_by_mouse_and_by_keyboard(visit):
    tab = visit()
    best_first = order(tab)
    assert best_first == ['held-out real images', 'wide', 'narrow']
    heading = tab.get_by_role('button', name='FD', exact=True)
    heading.click()
    heading.click()
    assert order(tab) == best_first[::-1]
    assert tab.locator('th[aria-sort=descending]').inner_text().startswith('FD')
    heading.focus()
    tab.keyboard.press('Enter')
    assert order(tab) == best_first


def test_a_cell_tells_its_protocol_on_hover_and_on_focus(visit):
    tab = visit()
    tip = tab.locator('#tip')
    tab.locator('.board td[data-tip]').nth(1).hover()
    assert 'num_samples' in tip.inner_text() and 'n = 3: 2.00 (seed 0), 3.00 (seed 1)' in tip.inner_text()
    tab.mouse.move(0, 0)
    assert tip.is_hidden()
    tab.locator('.board td[tabindex="0"]').focus()
    first = tip.inner_text()
    tab.keyboard.press('ArrowDown')
    assert tip.is_visible() and tip.inner_text() != first
    tab.keyboard.press('Escape')
    assert tip.is_hidden()


def test_the_table_is_one_stop_of_the_tab_key(visit):
    assert visit().locator('.board td[tabindex="0"]').count() == 1


def test_models_and_metrics_can_be_chosen(visit):
    tab = visit()
    place = drawn(tab, 'nfe')
    assert symbols(place) == 4  # two models, two samplers each
    tab.locator('.chip', has_text='narrow').click()
    playwright.expect(place.locator('.mark-symbol path')).to_have_count(2)
    tab.get_by_label('Metric').select_option('precision')
    playwright.expect(place.locator('.mark-symbol path')).to_have_count(1)
    playwright.expect(place).to_contain_text('precision (higher is better)')
    tab.get_by_role('button', name='none', exact=True).click()
    playwright.expect(place).to_contain_text('None of the chosen')
    tab.get_by_role('button', name='all', exact=True).click()
    playwright.expect(place.locator('.mark-symbol path')).to_have_count(2)


def test_a_model_is_chosen_by_keyboard(visit):
    tab = visit()
    place = drawn(tab, 'flops')
    assert symbols(place) == 2
    tab.locator('.chip input').first.focus()
    tab.keyboard.press('Space')
    playwright.expect(place.locator('.mark-symbol path')).to_have_count(1)


def test_figures_are_drawn_when_they_come_into_view(visit):
    tab = visit()
    waiting = '.chart:not([data-drawn])'
    assert tab.locator(waiting).count() > 0
    for place in tab.locator('.chart').all():
        place.scroll_into_view_if_needed()
        tab.wait_for_function('place => place.dataset.drawn', arg=place.element_handle())
    assert tab.locator(waiting).count() == 0


def test_the_slider_goes_from_noise_to_image_with_the_schedule_beside_it(visit):
    tab = visit()
    tab.locator('#explorer').scroll_into_view_if_needed()
    until(tab, 'state', 10)
    slider, said = tab.get_by_label('Step from noise to image'), tab.locator('#explore-said')
    slider.focus()
    tab.keyboard.press('ArrowRight')
    until(tab, 'state', 30)
    until(tab, 'clean', 130)
    assert 'step 1 of 4' in said.inner_text() and 'α = 0.25, σ = 0.75, log SNR = −2.2' in said.inner_text()
    assert slider.get_attribute('aria-valuetext').startswith('step 1 of 4')
    marker = tab.locator('#explore-chart .now').first.get_attribute('d')
    tab.keyboard.press('End')
    until(tab, 'clean', 90)  # at the end the image itself
    assert tab.locator('#explore-chart .now').first.get_attribute('d') != marker
    assert 'log SNR = ∞' in said.inner_text()


def test_a_reconstruction_starts_from_a_noisy_image_beside_its_target(visit):
    tab = visit()
    tab.locator('#explorer').scroll_into_view_if_needed()
    until(tab, 'state', 10)
    assert tab.locator('#strip-target').is_hidden()
    tab.locator('#explore-model').select_option(label='narrow')
    tab.locator('#explore-start').select_option('2')
    until(tab, 'input', 60)
    until(tab, 'target', 200)
    assert 'step 2 of 4' in tab.locator('#explore-said').inner_text()
    tab.get_by_label('Step from noise to image').press('End')
    until(tab, 'state', 100)
    until(tab, 'input', 60)


def test_the_steps_can_be_played(visit):
    tab = visit()
    tab.locator('#explorer').scroll_into_view_if_needed()
    until(tab, 'state', 10)
    tab.get_by_role('button', name='Play the steps').click()
    playwright.expect(tab.locator('#explore-said')).to_contain_text('step 4 of 4')
    playwright.expect(tab.get_by_role('button', name='Play the steps')).to_be_visible()


def test_a_point_tells_its_numbers_once_in_the_colours_of_the_page(visit):
    tab = visit(scheme='dark')
    drawn(tab, 'nfe').locator('.mark-symbol path').first.hover()
    tip = tab.locator('#figure-tip')
    playwright.expect(tip).to_contain_text('wide · direct · 1')
    names = tip.locator('dt').all_inner_texts()
    assert names == ['model', 'value', '95% interval', 'seeds'] and '3.00 ± 1.00' in tip.inner_text()
    ground = tip.evaluate('tip => getComputedStyle(tip).backgroundColor')
    assert max(map(int, re.findall(r'\d+', ground)[:3])) < 80
    assert tip.evaluate('tip => tip.scrollWidth <= tip.clientWidth')


def test_the_contest_is_not_squashed_and_can_be_zoomed_into(visit):
    tab = visit()
    place = drawn(tab, 'nfe')

    def highest():
        texts = place.locator('.role-axis-label text').all_text_contents()
        return max(float(text.replace('−', '-')) for text in texts)

    assert highest() < 40  # the samplers that lie near 200 are marked at the edge
    assert '1 off the axis; the furthest is narrow · ddim · 4' in place.locator('xpath=..').inner_text()
    before = highest()
    tab.get_by_role('button', name='Zoom in on the best').click()
    tab.wait_for_timeout(300)
    assert highest() < before
    tab.locator('#quality-axis').select_option('linear')
    tab.wait_for_timeout(300)
    assert highest() >= 200


def test_models_stand_side_by_side_from_the_same_noise(visit):
    tab = visit()
    tab.locator('#explorer').scroll_into_view_if_needed()
    until(tab, 'state', 10)
    tab.locator('#explore-model').select_option('all')
    until(tab, 'all-0', 10)
    until(tab, 'all-1', 60)
    tab.get_by_label('Step from noise to image').press('End')
    until(tab, 'all-0', 90)
    until(tab, 'all-1', 140)
    assert tab.locator('#strip-all-1').inner_text().startswith('narrow · ddim, step 4 of 4')
    tab.locator('#explore-model').select_option(label='narrow')
    until(tab, 'state', 60)


def test_the_pairs_of_another_metric_can_be_seen(visit):
    tab = visit()
    shown = tab.locator('[data-pairs]:visible')
    assert shown.get_attribute('data-pairs') == 'fd'
    tab.locator('#pairs-metric').select_option('precision')
    assert shown.get_attribute('data-pairs') == 'precision'


@pytest.mark.parametrize('width', [360, 768])
def test_a_narrow_screen_scrolls_tables_not_the_page(visit, width):
    tab = visit(width)
    for place in tab.locator('section').all():
        place.scroll_into_view_if_needed()
    tab.wait_for_timeout(300)
    assert tab.evaluate('document.documentElement.scrollWidth') <= width


def test_a_figure_with_long_names_is_not_cut_on_a_phone(visit):
    """The figure of likelihoods, with longer names: no text is shortened or lies beyond the picture."""
    tab = visit(390)
    cut = tab.evaluate("""async () => {
        const old = document.querySelector('.chart[data-spec=spec-0]');
        const spec = read(old.dataset.spec);
        spec.data.values.forEach((point, number) => (point.name = `normalizing_flow · density_${number}`));
        spec.encoding.y.sort = spec.data.values.map((point) => point.name);
        const place = old.cloneNode();
        old.replaceWith(place);
        await draw(place, spec);
        const picture = place.querySelector('svg').getBoundingClientRect();
        return [...place.querySelectorAll('svg text')].filter((text) => {
            const box = text.getBoundingClientRect();
            return text.textContent.includes('…') || box.left < picture.left - 1 || box.right > picture.right + 1;
        }).map((text) => text.textContent);
    }""")
    assert cut == []


def test_dark_follows_the_system_and_the_button(visit):
    def ground(tab):
        colour = tab.evaluate('getComputedStyle(document.body).backgroundColor')
        return sum(map(int, re.findall(r'\d+', colour)[:3])) / 3

    dark, light = visit(scheme='dark'), visit()
    assert ground(dark) < 60 and ground(light) > 200
    light.get_by_role('button', name='Colour theme').click()
    light.get_by_role('button', name='Colour theme').click()
    assert ground(light) < 60


def test_every_control_has_a_name_and_every_picture_words(visit):
    tab = visit()
    tab.locator('#explorer').scroll_into_view_if_needed()
    until(tab, 'state', 10)
    named = """() => [...document.querySelectorAll('button, select, input')].filter((control) =>
        !(control.labels?.length || control.textContent.trim() || control.getAttribute('aria-label'))).length"""
    assert tab.evaluate(named) == 0
    assert tab.evaluate("document.querySelectorAll('img:not([alt])').length") == 0
    assert tab.locator('#strip-state canvas').get_attribute('aria-label').startswith('State at step')
