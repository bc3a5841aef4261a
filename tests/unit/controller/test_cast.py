import pytest

from toolkit.controller.cast import protocol_of
from toolkit.errors import WorkloadError
from toolkit.spec.testbed import Image, Service
from toolkit.spec.workload import Workload


@pytest.mark.parametrize(
    ("image", "settings", "protocol"),
    [
        ("event-handler", {}, "sse"),
        ("event-handler", {"mode": "enhanced"}, "sse"),
        ("event-handler", {"mode": "original"}, "http"),
        ("mosquitto", {}, "mqtt"),
        ("rabbitmq", {"protocols": ["stomp", "mqtt"]}, "mqtt"),
        ("activemq", {}, "stomp"),
    ],
)
def test_a_broker_is_spoken_to_as_its_mode_wants(image: str, settings: dict[str, str], protocol: str) -> None:
    broker = Service(name="broker", role="broker", image=Image(name=image), nodes=("n",), settings=settings)
    assert protocol_of(broker, Workload(name="w")) == protocol


def test_what_a_broker_does_not_speak_is_named() -> None:
    def asked(image: str, **options: str) -> str:
        broker = Service(name="broker", role="broker", image=Image(name=image), nodes=("n",))
        return protocol_of(broker, Workload(name="w", options=options))

    assert asked("mosquitto", mqtt="5") == asked("mosquitto", mqtt="5.0") == "mqtt"
    with pytest.raises(WorkloadError, match=r"speaks MQTT 3\.1\.1, not 5"):
        asked("rabbitmq", protocol="mqtt", mqtt="5")
    with pytest.raises(WorkloadError, match="speaks mqtt, not amqp"):
        asked("mosquitto", protocol="amqp")
    with pytest.raises(WorkloadError, match="nothing says what protocol"):
        asked("somebody/else")
