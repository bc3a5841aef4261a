"""Databases of earlier versions become today's, with what is in them."""

from pathlib import Path

from sqlalchemy import create_engine, inspect, text

from toolkit.node.arrowhead import schema
from toolkit.node.arrowhead.schema import METADATA, MIGRATIONS
from toolkit.node.arrowhead.storage import open_storage


def test_each_earlier_version_becomes_todays(tmp_path: Path, monkeypatch) -> None:
    for version in range(1, len(MIGRATIONS)):
        url = f"sqlite:///{tmp_path}/{version}.sqlite"
        engine = create_engine(url, future=True)
        with monkeypatch.context() as patch, engine.begin() as connection:
            patch.setattr(schema, "MIGRATIONS", MIGRATIONS[:version])
            assert schema.migrate(connection) == version
            connection.execute(text("INSERT INTO arrowhead_service (service_definition) VALUES ('kept')"))
        engine.dispose()
        storage = open_storage(url, pool=1, timeout_s=1)
        tables = inspect(storage.engine)
        assert set(METADATA.tables) <= set(tables.get_table_names())
        indexes = {index["name"] for table in METADATA.tables for index in tables.get_indexes(table)}
        assert "service_registry_provider_system_id" in indexes
        kept = storage.wait_read(
            lambda c: c.execute(text("SELECT service_definition FROM arrowhead_service")).scalars().all()
        )
        assert kept == ["kept"]
        assert storage.wait_write(schema.migrate) == 0
        storage.close()
