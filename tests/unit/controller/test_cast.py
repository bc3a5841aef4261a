import pytest

from toolkit.controller.cast import usual_protocol
from toolkit.spec.testbed import Image, Service


@pytest.mark.parametrize(
    ("image", "settings", "protocol"),
    [
        ("event-handler", {}, "sse"),
        ("event-handler", {"mode": "enhanced"}, "sse"),
        ("event-handler", {"mode": "original"}, "http"),
        ("mosquitto", {}, "mqtt"),
        ("somebody/else", {"mode": "original"}, ""),
    ],
)
def test_a_broker_is_spoken_to_as_its_mode_wants(image: str, settings: dict[str, str], protocol: str) -> None:
    broker = Service(name="broker", role="broker", image=Image(name=image), nodes=("n",), settings=settings)
    assert usual_protocol(broker) == protocol
