"""Which database URLs are understood, and that no refusal shows a password."""

import pytest

from service.db.connection import Database


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:secret@h/d", "begins with 'mysql'"),
        ("postgres://u:secret@h/d?target=x", "option 'target'"),
        ("not a url secret", "is not a URL"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_both_spellings_and_the_ssl_mode_of_others_are_understood() -> None:
    assert Database("postgres://u@h/d").engine.url.drivername == "postgresql+asyncpg"
    assert dict(Database("postgresql://u@h/d?sslmode=require").engine.url.query) == {"ssl": "require"}
