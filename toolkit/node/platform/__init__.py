"""The IoT platform's two ends: the gateway takes messages in from devices, the hub hands them out to customers."""
