from __future__ import annotations

from pathlib import Path

import pytest

from dissectors.installed_module import NOTHING_INSTALLED, InstalledModule
from dissectors.version import Version
from tools.update_server.field_story import CX700_STUCK, FieldStory
from tools.update_server.packages import CX700, make_synthetic
from tools.update_server.rules import Rule, RuleBook
from tools.update_server.service import Check, Layout, UpdateService, UrlSettings

BRIDGE = Version.parse("1.0.522.103")
R2 = Version.parse("3.5.6907.222")
NEVER_SET = UrlSettings(internal="", external="")


def check(version: str, file_name: str | None = "CPE.nbt") -> Check:
    return Check(CX700, modules=(InstalledModule(file_name, Version.parse(version), None),))


def service(root: Path, approved: Version | None = R2, **options: object) -> UpdateService:
    return UpdateService(root, RuleBook((Rule(CX700, approved_version=approved),)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("installed", ["1.0.522.73", "4.0.7577.4066", "0.0.0.0"])
def test_the_approved_version_is_offered_whenever_it_differs_even_if_older(tmp_path: Path, installed: str) -> None:
    assert [offer.version for offer in service(tmp_path).answer(check(installed)).offers] == [R2]


def test_the_installed_version_is_not_offered(tmp_path: Path) -> None:
    answer = service(tmp_path).answer(check(str(R2)))
    assert answer.offers == ()
    assert "installed" in answer.reason


def test_a_phone_that_reports_no_module_has_the_zero_version(tmp_path: Path) -> None:
    assert Check(CX700).installed("CPE") == Version(0, 0, 0, 0)
    assert Check(CX700, modules=(NOTHING_INSTALLED,)).installed("CPE") == Version(0, 0, 0, 0)
    assert service(tmp_path).answer(Check(CX700)).offers != ()


def test_the_module_named_like_the_update_type_counts() -> None:
    modules = (InstalledModule("eboot.nbt", BRIDGE, None), InstalledModule("cpe.nbt", R2, None))
    assert Check(CX700, modules=modules).installed("CPE") == R2


def test_the_urls_follow_the_documented_layout(tmp_path: Path) -> None:
    (offer,) = service(tmp_path).answer(check("1.0.522.73"), "192.168.7.81").offers
    assert offer.internal_url == (
        "http://192.168.7.81/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/3.5.6907.222/CPE"
    )
    assert offer.external_url.startswith("https://192.168.7.81/DeviceUpdateFiles_Ext/UCPhone/Polycom/")


def test_the_lync_layout_and_urls_set_by_an_administrator(tmp_path: Path) -> None:
    urls = UrlSettings("http://internalweb.contoso.net", "https://csweb.contoso.com/", Layout.LYNC)
    (offer,) = service(tmp_path, urls=urls).answer(check("1.0.522.73"), "192.168.7.81").offers
    assert offer.internal_url.startswith("http://internalweb.contoso.net/RequestHandler/Files/UCPhone/")
    assert offer.external_url.startswith("https://csweb.contoso.com/RequestHandlerExt/Files/UCPhone/")


def test_urls_never_populated_are_blank(tmp_path: Path) -> None:
    (offer,) = service(tmp_path, urls=NEVER_SET).answer(check("1.0.522.73")).offers
    assert (offer.internal_url, offer.external_url, offer.version) == ("", "", R2)


def test_files_are_offered_by_the_names_they_have(tmp_path: Path) -> None:
    package = make_synthetic(tmp_path, R2, 100)
    (package.folder / "CPE.nbt").rename(package.folder / "nk.nbt")
    (offer,) = service(tmp_path).answer(check("1.0.522.73")).offers
    assert (offer.file_name, offer.signature_file_name) == ("nk.nbt", "CPE.cat")
    assert offer.timestamp == "01-04-2008 05:07:42"


def test_a_rule_whose_files_are_gone_still_offers_them(tmp_path: Path) -> None:
    (offer,) = service(tmp_path).answer(check("1.0.522.73")).offers
    assert (offer.file_name, offer.signature_file_name, offer.timestamp) == ("CPE.nbt", "CPE.cat", "")


def test_no_rule_no_offer(tmp_path: Path) -> None:
    answer = service(tmp_path).answer(Check(CX700._replace(model="CX600")))
    assert answer.offers == ()
    assert "CX600" in answer.reason


def test_operations_take_effect_at_the_next_check(tmp_path: Path) -> None:
    server = service(tmp_path, approved=BRIDGE)
    rule = server.submit(server.rules.rules[0], R2)
    assert server.answer(check(str(BRIDGE))).offers == ()
    rule = server.approve(rule)
    assert [offer.version for offer in server.answer(check(str(BRIDGE))).offers] == [R2]
    rule = server.restore(rule)
    assert [offer.version for offer in server.answer(check(str(R2))).offers] == [BRIDGE]
    assert server.reset(rule) == rule
    with pytest.raises(ValueError, match="not in"):
        server.reset(Rule(CX700._replace(model="CX600")))


def test_the_field_story_stands_beside_the_rules(tmp_path: Path) -> None:
    told = service(tmp_path, stories=CX700_STUCK)
    assert told.answer(check("1.0.522.73")).offers == ()
    assert [offer.version for offer in told.answer(check("0.0.0.0")).offers] == [BRIDGE]
    assert [offer.version for offer in told.answer(check("1.0.522.103")).offers] == [R2]
    assert service(tmp_path).answer(check("1.0.522.73")).offers != ()


def test_a_field_story_may_be_of_one_model(tmp_path: Path) -> None:
    told = service(tmp_path, stories=(FieldStory.of("1.0.522.73", None, model="CX200"),))
    assert told.answer(check("1.0.522.73")).offers != ()
