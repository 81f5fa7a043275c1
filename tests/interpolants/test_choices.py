"""Names with numbers, as configs write them."""

import pytest

from genbench.errors import UserError
from genbench.interpolants import choices
from genbench.ranges import COUNT, POSITIVE

KNOWN = {
    'plain': choices.Choice(lambda x: x),
    'scaled': choices.Choice(
        lambda x, *, factor, times: x * factor * times, {'factor': (2.0, POSITIVE), 'times': (1, COUNT)}
    ),
}


@pytest.mark.parametrize(
    ('text', 'wanted'), [('plain', 3), ('scaled', 6), ('scaled:factor=0.5', 1.5), ('scaled:factor=5,times=2', 30)]
)
def test_numbers_that_are_not_named_have_their_defaults(text, wanted):
    assert choices.choose('family.size', text, KNOWN).function(3) == wanted


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('scale', "There is no size 'scale' \\(family.size\\). Did you mean scaled"),
        ('plain:factor=2', 'plain takes no numbers'),
        ('scaled:2', 'scaled takes factor, times; write family.size=NAME:key=number'),
        ('scaled:factr=2', 'scaled takes factor, times'),
        ('scaled:factor=two', "'two' should be a number"),
        ('scaled:times=1.5', "'1.5' should be an integer"),
        ('scaled:factor=0', 'factor of family.size is 0.0; it should be above 0'),
        ('scaled:factor=nan', 'finite'),
    ],
)
def test_what_a_choice_does_not_take_is_one_line(text, why):
    with pytest.raises(UserError, match=why) as caught:
        choices.choose('family.size', text, KNOWN)
    assert '\n' not in str(caught.value)
