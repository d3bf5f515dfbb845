"""Calls between a candidate's process and the judge's, over a pair of pipes; either side may call the other back."""

import wire

FAULTS = (wire.NotPlain, wire.Broken, wire.Gone)
END = object()  # what an exhausted iterator gives


class Peer:
    """One end of the pipes.

    Args:
        channel: descriptors to read from and to write to.
        lookup: name -> callable, for calls by name; raises NameError.
        printed: gives the text printed since it was last asked, to travel with a reply; None where nobody wants it.

    ``calls`` counts the calls made to the other side; ``fault`` is the first exception of ``FAULTS`` that a call ended
    in. It is kept because the code that made the call may have swallowed the exception. ``exits`` are the
    ``SystemExit``s that the other side raised: nobody on this side asked to end.
    """

    def __init__(self, channel, lookup, printed=None):
        self.reader, self.writer = channel
        self.lookup, self.printed = lookup, printed
        self.exports, self.exits, self.calls, self.fault = [], [], 0, None

    def marshal(self):
        return wire.Marshal(self.export, self.stub, self.iterator)

    def export(self, value):
        self.exports.append(value)
        return len(self.exports) - 1

    def stub(self, target, name="function"):
        """A function that calls the other side's ``target``: a name, or the handle of something it exported."""
        def call(*args, **named):
            return self.call(target, args, named)

        call.__name__ = call.__qualname__ = name
        return call

    def iterator(self, target):
        while True:
            found = self.ask(["next", target], self.marshal())
            if found is END:
                return
            yield found

    def call(self, target, args, named):
        """Call a function of the other side; its exceptions are raised here, its changes to the arguments done here."""
        marshal = self.marshal()
        self.calls += 1
        try:
            codes = [marshal.encode(args), marshal.encode(list(named.items()))]
        except RecursionError:
            self.fault = wire.NotPlain("data nested too deeply")
            raise self.fault from None
        except wire.NotPlain as error:
            error.ours = True
            self.fault = self.fault or error
            raise
        value = self.ask(["call", target, *codes], marshal)
        if value is END:
            self.fault = wire.Broken("the end of an iterator")
            raise self.fault
        return value

    def ask(self, message, marshal):
        try:
            wire.send(self.writer, message)
            while (reply := checked(wire.receive(self.reader)))[0] in ("call", "next"):
                self.answer(reply)
            value, error = self.result(reply, marshal)
        except FAULTS as fault:
            self.fault = self.fault or fault
            raise
        except RecursionError:
            self.fault = self.fault or wire.Broken("data nested too deeply")
            raise
        if isinstance(error, SystemExit):
            self.exits.append(error)
        if error is not None:
            raise error
        return value

    def result(self, reply, marshal):
        """(value, exception of the other side) of a reply."""
        if len(reply) != 4:
            raise wire.Broken("no reply")
        kind, first, changes, printed = reply
        if kind == "end":
            return END, None
        if kind == "unplain":
            raise wire.NotPlain(str(first)[:100])
        if kind not in ("return", "raise"):
            raise wire.Broken("an unknown reply")
        value, error = (marshal.decode(first), None) if kind == "return" else (None, self.exception(first))
        marshal.apply(changes)
        if type(printed) is str and self.printed is None:
            print(printed, end="")
        return value, error

    def exception(self, code):
        try:
            return wire.decode_exception(*code)
        except (TypeError, KeyError, ValueError):
            raise wire.Broken("no exception") from None

    def answer(self, message):
        """Do what the other side asks and reply."""
        marshal = self.marshal()
        try:
            reply = self.advance(message, marshal) if message[0] == "next" else self.execute(message, marshal)
            wire.send(self.writer, reply)
        except wire.NotPlain as error:
            wire.send(self.writer, ["unplain", str(error), [], None])
        except RecursionError:
            wire.send(self.writer, ["unplain", "data nested too deeply", [], None])
        except MemoryError:
            wire.send(self.writer, ["unplain", "more data than there is memory for", [], None])

    def advance(self, message, marshal):
        try:
            iterator = self.exports[message[1]]
        except (IndexError, TypeError):
            raise wire.Broken("no such iterator") from None
        return self.outcome(marshal, lambda: next(iterator, END))

    def execute(self, message, marshal):
        try:
            target = message[1]
            function = self.exports[target] if type(target) is int else self.lookup(target)
            args, named = marshal.decode(message[2]), dict(marshal.decode(message[3]))
        except NameError as error:
            return ["raise", wire.encode_exception(error), [], None]
        except (IndexError, TypeError, ValueError):
            raise wire.Broken("no call") from None
        marshal.remember()
        return self.outcome(marshal, lambda: function(*args, **named))

    def outcome(self, marshal, act):
        """The reply on what ``act`` returns or raises."""
        try:
            value = act()
        except FAULTS:
            raise
        except BaseException as error:
            return ["raise", wire.encode_exception(error), marshal.changes(), self.text()]
        if value is END:
            return ["end", None, [], None]
        return ["return", marshal.encode(value), marshal.changes(), self.text()]

    def text(self):
        return self.printed() if self.printed is not None else None


def checked(message):
    if type(message) is not list or not message:
        raise wire.Broken("no message")
    return message
