"""The client against a server in this process that loses connections on purpose."""

import json
import socket
import sys
import threading
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from syncline_client import (  # noqa: E402
    Client,
    EventError,
    ForgottenError,
    GaveUpError,
    ProtocolError,
    RefusedError,
    ReplacedError,
)


def at_once(failures, seconds):
    """A retry policy for tests."""
    return 0.001 if failures < 100 else None


class Server:
    """Takes events as the protocol says; ``cut_after`` closes each of the first connections
    after so many bytes, without a word and without looking at what is left."""

    def __init__(self, cut_after=(), key=None, disk_full_times=0, ack_every=1):
        self.cut_after = list(cut_after)
        self.key = key
        self.disk_full_times = disk_full_times
        self.ack_every = ack_every
        self.last_seq = 0
        self.taken = []
        self.connections = 0
        self.say_first = None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def client(self, **more):
        more.setdefault("retry", at_once)
        return Client("127.0.0.1", self.port, producer="billing", **more)

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                try:
                    self._serve(connection)
                except OSError:
                    pass

    def _serve(self, connection):
        budget = self.cut_after.pop(0) if self.cut_after else None
        if self.say_first is not None:
            connection.sendall(self.say_first)
            return
        rest = b""
        previous = 0
        while True:
            received = connection.recv(4096)
            if not received:
                return
            if budget is not None:
                received = received[:budget]
                budget -= len(received)
            *lines, rest = (rest + received).split(b"\n")
            answers = []
            for line in lines:
                message = json.loads(line)
                if "hello" in message:
                    if self.key is not None and message["hello"].get("key") != self.key:
                        refusal = {"code": "unauthorized", "detail": "no valid key"}
                        self._say(connection, [{"error": refusal}])
                        return
                    previous = self.last_seq
                    answers.append({"welcome": {"producer": "billing", "last_seq": previous}})
                    continue
                previous += 1
                if "full" in message and self.disk_full_times > 0:
                    self.disk_full_times -= 1
                    reject = {"seq": previous, "code": "disk_full", "detail": "full", "retry": True}
                    self._say(connection, answers + [{"reject": reject}])
                    return
                if "bad" in message:
                    reject = {"seq": previous, "code": "unknown_field", "detail": "no such field"}
                    answers.append({"reject": {**reject, "pointer": "/bad"}})
                else:
                    self.taken.append(message["n"])
                self.last_seq = previous
                if previous % self.ack_every == 0:
                    answers.append({"ack": {"seq": previous}})
            if budget == 0:
                return  # taken, and nobody was told
            self._say(connection, answers)

    @staticmethod
    def _say(connection, answers):
        connection.sendall(b"".join(json.dumps(answer).encode() + b"\n" for answer in answers))


class ClientTest(unittest.TestCase):
    def serve(self, **settings):
        server = Server(**settings)
        self.addCleanup(server.close)
        return server

    def test_events_are_taken_in_order_and_numbered(self):
        server = self.serve()
        with server.client() as client:
            numbers = [client.send({"n": n, "text": "é\n"}) for n in range(1, 2001)]
            client.flush()
            self.assertEqual((client.last_seq, client.unacked), (2000, 0))
        self.assertEqual(numbers, list(range(1, 2001)))
        self.assertEqual(server.taken, list(range(1, 2001)))

    def test_leaving_the_block_waits_for_the_acks(self):
        server = self.serve()
        with server.client() as client:
            client.send('{"n":1}')
            client.send(b' {"n":2} ')
        self.assertEqual(server.taken, [1, 2])

    def test_a_connection_cut_anywhere_loses_and_doubles_nothing(self):
        for first_cut in range(1, 120):
            cuts = [first_cut, 50 + first_cut, 300, 1]
            server = self.serve(cut_after=cuts)
            with server.client() as client:
                for n in range(1, 41):
                    client.send({"n": n})
                    if n % 7 == 0:
                        client.push()
            self.assertEqual(server.taken, list(range(1, 41)), f"cut after {first_cut} bytes")
            self.assertGreaterEqual(server.connections, 2)

    def test_rejects_are_told_with_their_place(self):
        server = self.serve()
        rejects = []
        with server.client(on_reject=rejects.append) as client:
            for event in [{"n": 1}, {"bad": 1}, {"n": 3}]:
                client.send(event)
        self.assertEqual(server.taken, [1, 3])
        (reject,) = rejects
        self.assertEqual((reject.seq, reject.code), (2, "unknown_field"))
        self.assertEqual((reject.detail, reject.pointer), ("no such field", "/bad"))

    def test_a_full_disk_is_waited_for(self):
        server = self.serve(disk_full_times=3)
        with server.client() as client:
            for event in [{"n": 1}, {"n": 2, "full": 1}, {"n": 3}]:
                client.send(event)
        self.assertEqual(server.taken, [1, 2, 3])
        self.assertEqual(server.connections, 4)

    def test_a_new_client_goes_on_where_the_last_one_ended(self):
        server = self.serve()
        for round_number in range(3):
            with server.client() as client:
                self.assertEqual(client.last_seq, round_number)
                client.send({"n": round_number})
        self.assertEqual(server.taken, [0, 1, 2])

    def test_a_small_window_does_not_lock_up(self):
        server = self.serve()
        with server.client(unacked_bytes_max=100) as client:
            for n in range(500):
                client.send({"n": n})
                self.assertLessEqual(client.unacked, 15)
        self.assertEqual(server.taken, list(range(500)))

    def test_an_event_that_cannot_be_sent_harms_no_other(self):
        server = self.serve()
        with server.client() as client:
            bad = [{"n": 1, "seq": 1}, {"n": float("nan")}, {"n": {1}}, "", "  ", "{\n}"]
            for event in bad + ["x" * ((1 << 20) + 1)]:
                with self.assertRaises(EventError):
                    client.send(event)
            client.send({"n": 1, "pad": "x" * ((1 << 20) - 17)})
        self.assertEqual(server.taken, [1])

    def test_a_wrong_key_is_final(self):
        server = self.serve(key="right")
        for key in (None, "wrong"):
            with self.assertRaises(RefusedError) as caught:
                server.client(key=key)
            self.assertEqual(caught.exception.code, "unauthorized")
        with server.client(key="right") as client:
            client.send({"n": 1})
        self.assertEqual(server.taken, [1])

    def test_a_replaced_client_stops(self):
        server = self.serve()
        server.say_first = b'{"error":{"code":"replaced"}}\n'
        with self.assertRaises(ReplacedError):
            server.client()

    def test_a_server_that_forgot_is_not_served(self):
        server = self.serve(cut_after=[200])
        client = server.client()
        client.send({"n": 1})
        client.flush()
        server.last_seq = 0
        client.send({"n": 2, "pad": "x" * 300})
        with self.assertRaises(ForgottenError):
            client.flush()

    def test_what_is_no_syncline_is_told_apart(self):
        for words in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]\n", b'{"ack":{}}\n', b"\x00\n"):
            server = self.serve()
            server.say_first = words
            with self.assertRaises(ProtocolError):
                server.client()

    def test_a_server_that_is_gone_is_given_up_on(self):
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.close()
        failures = []

        def three_times(count, seconds):
            failures.append(count)
            return 0 if count < 3 else None

        with self.assertRaises(GaveUpError):
            Client("127.0.0.1", port, producer="billing", retry=three_times)
        self.assertEqual(failures, [1, 2, 3])

    def test_a_callback_that_raises_is_heard(self):
        server = self.serve()

        def refuse(reject):
            raise KeyError("mine")

        client = server.client(on_reject=refuse)
        client.send({"bad": 1})
        with self.assertRaisesRegex(KeyError, "mine"):
            client.flush()


if __name__ == "__main__":
    unittest.main()
