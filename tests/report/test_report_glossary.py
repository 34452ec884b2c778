"""One glossary a page: every term that its tables use, once, and no other."""

import html
import re

import pytest
from made_audit import made_audit
from made_generation import made_generation
from made_results import made_results

from jax_unlearn.recipes import pages
from jax_unlearn.report import glossary, render

SELF = {"Model", "Figure", "verdict", "target", "Target", "null's interval"}


def listed(page):
    """Return the terms of a page, and its meanings, as they stand there."""
    start = page.index('id="terms"')
    part = page[start : page.index("</details>", start)]
    cells = (re.findall(rf"<{tag}>(.*?)</{tag}>", part) for tag in ("dt", "dd"))
    return [[html.unescape(cell) for cell in own] for own in cells]


PAGES = {
    "experiment": lambda: render(made_results(seeds=3)),
    "audit": lambda: render({"format": 1, "audit": made_audit(separated=2)}),
    "images": lambda: render(made_generation()),
    "texts": lambda: render(pages.stored("language_smoke")),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_explains_each_term_once(name):
    page = PAGES[name]()
    terms, meanings = listed(page)
    assert len({*terms}) == len(terms) == len(meanings)
    assert len({*meanings}) == len(meanings)
    assert page.count('<dl class="glossary">') <= 2  # another lists the methods
    if name != "audit":  # whose figures are explained on the page of a method
        start = page.index('<table class="main"')
        head = page[start : page.index("</tr>", start)]
        heads = re.findall(r'<th scope="col".*?</th>', head)
        words = [html.unescape(re.sub(r"<[^>]*>", "", head)) for head in heads]
        for word in {glossary.base(word.replace("\xa0", " ")) for word in words} - SELF:
            short = "vs. nothing" if word.endswith(" vs. nothing") else word
            assert short in terms, word


def test_a_term_that_no_table_uses_is_left_out():
    used = dict(glossary.used("<p>KLoM</p><th>ToW</th>", {"RA": "?"}))
    assert [*used] == ["ToW"]
    assert glossary.used("<th>UA</th>", {"UA": "another"}) == [("UA", "another")]
    assert glossary.used("<th>ToW-MIA</th><th>SUAVE</th>", {}) == []
