package vm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The power button is pressed again, since a guest that is booting may not have
// heard it. The pauses grow from the first to the last: a guest that has heard
// it needs no more of them, one that boots slowly should not lose much time.
const (
	firstPress = 2 * time.Second
	lastPress  = 5 * time.Second
)

// PressUntilGone presses the power button of a machine with press, again and again,
// until gone says that the machine is gone. gone waits for that, for as long as its
// context lasts. A button that cannot be pressed is waited for as well, but for that of a
// machine which is paused: [ErrPaused]. After timeout it returns [ErrShutdownTimeout],
// with the reason if the button could not even be pressed.
func PressUntilGone(ctx context.Context, timeout time.Duration, press func(context.Context) error, gone func(context.Context) (bool, error)) error {
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for pause := firstPress; ; pause = min(pause*3/2, lastPress) {
		pressed := press(waiting)
		if errors.Is(pressed, ErrPaused) {
			return pressed
		}
		is, err := waitFor(waiting, gone, pause)
		switch {
		case is || err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case waiting.Err() == nil:
			continue
		}
		err = fmt.Errorf("%w (%s)", ErrShutdownTimeout, timeout)
		if pressed != nil && !errors.Is(pressed, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: its power button could not be pressed: %w", err, pressed)
		}
		return err
	}
}

func waitFor(ctx context.Context, gone func(context.Context) (bool, error), d time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return gone(ctx)
}
