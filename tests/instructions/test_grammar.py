"""The grammar: rules, sentences that mean what they say, and typing errors."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseloop.errors import ConfigurationError
from fuseloop.instructions.grammar import KINDS, MIXED, SHARES, Grammar, Rules, Sentences, mistype, mistype_word
from fuseloop.instructions.intents import ATTRIBUTES, INTENTS, LANGUAGES


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return Sentences()


def all_of(rules: dict[str, str], name: str = "a") -> set[str]:
    return {Rules(rules).expand(name, Random(seed))[0] for seed in range(200)}


class TestRules:
    def test_bars_separate_alternatives_brackets_hold_choices_and_braces_name_rules(self):
        assert all_of({"a": "x {b} | (y|) z", "b": "1|2"}) == {"x 1", "x 2", "y z", "z"}

    def test_brackets_may_stand_in_brackets(self):
        assert all_of({"a": "((1|2) 3|4) 5"}) == {"1 3 5", "2 3 5", "4 5"}

    def test_names_that_are_missing_lead_to_the_outer_rules(self):
        inner = Rules({"a": "{b}", "c": "inner"}, Rules({"b": "{c}", "c": "outer"}))
        assert inner.expand("a", Random(0)) == ("inner", {"b", "c"})

    def test_spaces_are_single_and_none_are_beside_chinese_characters_or_before_a_comma(self):
        assert all_of({"a": " detect  ( people) , please "}) == {"detect people, please"}
        assert all_of({"a": "检测 (行人) yolo 好"}) == {"检测行人yolo好"}

    @pytest.mark.parametrize("rule", ["(x", "x)", "{x", "x}", "{}", "(x|y))"])
    def test_a_bracket_without_a_partner_is_an_error_with_the_name_of_the_rule(self, rule):
        with pytest.raises(ConfigurationError, match="rule 'a' has a bracket or brace without a partner"):
            Rules({"a": rule})

    def test_a_rule_that_does_not_exist_is_an_error(self):
        with pytest.raises(ConfigurationError, match="no rule 'b'"):
            Rules({"a": "{b}"}).expand("a", Random(0))


class TestSentences:
    @pytest.mark.parametrize("language", LANGUAGES)
    def test_every_rule_of_a_language_can_be_expanded(self, sentences, language):
        grammar = sentences.grammars[language]
        random = Random(0)
        for _ in range(1000):
            for sentence in (grammar.instruction(random), grammar.mixed(random), grammar.nonsense(random)):
                assert sentence.text
                assert not set("{}<>") & set(sentence.text) or not sentence.mixture
                assert sentence.language == language

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_hardly_any_instruction_comes_twice(self, sentences, language):
        random = Random(0)
        texts = [sentences.grammars[language].instruction(random).text for _ in range(1000)]
        assert len(set(texts)) > 800

    def test_mixtures_are_shares_of_intents(self, sentences):
        random, seen = Random(0), Counter()
        for _ in range(500):
            mixture = sentences.grammars["english"].mixed(random).mixture
            assert set(mixture) <= set(INTENTS)
            assert sum(mixture.values()) == pytest.approx(1)
            seen[tuple(sorted(mixture.values()))] += 1
        assert set(seen) == {tuple(sorted(share for share in shares if share)) for shares in MIXED.values()}

    def test_attributes_are_those_of_the_rules_that_a_sentence_went_through(self):
        tree = {
            "function_words": "",
            "night": "at night",
            "weather_word": "fog",
            "nonsense": "at night",
            "intents": {intent: {"frames": "see (|{night}) (|in {weather_word})"} for intent in INTENTS},
        }
        grammar = Grammar("english", tree)
        found = {(one.text, one.attributes) for one in (grammar.instruction(Random(seed)) for seed in range(100))}
        assert found == {
            ("see", frozenset()),
            ("see at night", frozenset({"night"})),
            ("see in fog", frozenset({"weather"})),
            ("see at night in fog", frozenset({"night", "weather"})),
        }
        assert grammar.nonsense(Random(0)).attributes == frozenset()

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_every_attribute_occurs(self, sentences, language):
        random = Random(0)
        found = Counter(
            name for _ in range(1000) for name in sentences.grammars[language].instruction(random).attributes
        )
        assert all(10 < found[name] < 600 for name in ATTRIBUTES), found

    def test_nonsense_has_no_meaning(self, sentences):
        random = Random(0)
        assert all(not sentences.grammars["german"].nonsense(random).mixture for _ in range(100))

    def test_a_seed_gives_the_same_sentences_again_in_the_stated_shares(self, sentences):
        first, again = ([sentences.draw(random) for _ in range(3000)] for random in (Random(1), Random(1)))
        assert first == again
        languages = Counter(one.language for one in first if one.language)
        for language, share in SHARES.items():
            assert languages[language] / languages.total() == pytest.approx(share, abs=0.03)
        meaningless = sum(not one.mixture for one in first) / len(first)
        assert meaningless == pytest.approx(KINDS["nonsense"] + KINDS["noise"], abs=0.03)


class TestTypingErrors:
    @given(st.text("abcdefgh", min_size=4, max_size=12), st.integers(0, 99))
    def test_a_word_keeps_most_of_its_letters(self, word, seed):
        wrong = mistype_word(word, Random(seed)).replace(" ", "")
        assert abs(len(wrong) - len(word)) <= 1
        assert sum((Counter(word) - Counter(wrong)).values()) <= 1

    def test_short_words_stay(self):
        assert all(mistype("run it on my set", Random(seed)) == "run it on my set" for seed in range(50))

    def test_every_kind_of_error_occurs(self):
        found = {mistype_word("detect", Random(seed)) for seed in range(500)}
        assert {"edtect", "dtect", "deetect", "detext", "det ect"} <= found

    def test_words_can_run_together(self):
        assert any(" " not in mistype("detect people", Random(seed)) for seed in range(200))

    def test_chinese_loses_doubles_or_swaps_a_character(self):
        found = {mistype("检测行人车辆", Random(seed)) for seed in range(300)}
        assert {"测行人车辆", "检检测行人车辆", "测检行人车辆"} <= found

    @given(st.text(max_size=30), st.integers(0, 9))
    def test_any_text_survives(self, text, seed):
        assert isinstance(mistype(text, Random(seed)), str)
