//go:build linux

package qmp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// fillJob is the block job of [Fill]. A machine has one at a time.
const fillJob = "drydock-fill"

// fillPause is how often a block job is looked at. In between others may use the
// socket, which serves one at a time.
const fillPause = time.Second

// fillSilence is how long QEMU may not answer while it copies: its main loop waits for
// disks now and then.
const fillSilence = 2 * time.Minute

// jobInfo is what is used of JobInfo (qapi/job.json).
type jobInfo struct {
	ID      string `json:"id"`
	Status  string `json:"status"`
	Current int64  `json:"current-progress"`
	Total   int64  `json:"total-progress"`
	Error   string `json:"error"`
}

// Fill has a QEMU copy what the qcow2 image shows of the images below it into it, while
// the guest runs, and returns when the image needs them no more. It goes on with what a
// process has begun that was killed.
//
// QEMU writes down that an image lies on nothing when the job ends, and keeps the tables
// of what it has copied in memory: if it died then, the disk would be zeros. So the job
// waits at its end, until the tables are written.
func Fill(ctx context.Context, reach Reach, image string, progress func(done, of int64)) error {
	// What another process has begun, of whichever disk, ends first.
	if err := awaitJob(ctx, reach, progress); err != nil && !errors.Is(err, errJob) {
		return err
	}
	begun := false
	err := reach(ctx, func(ctx context.Context, m Monitor) error {
		disk, err := FindDisk(ctx, m, image)
		if err != nil || disk.Backing == "" {
			return err
		}
		begun = true
		return m.Execute(ctx, "block-stream", map[string]any{"job-id": fillJob, "device": disk.NodeName, "auto-finalize": false, "auto-dismiss": false}, nil)
	})
	if err != nil || !begun {
		return err
	}
	return awaitJob(ctx, reach, progress)
}

// errJob is of a block job that QEMU gave up.
var errJob = errors.New("QEMU could not copy the disk")

// awaitJob waits until the job of [Fill] has ended, and clears it away. It does nothing
// if there is none.
func awaitJob(ctx context.Context, reach Reach, progress func(done, of int64)) error {
	heard := time.Now()
	for {
		var job *jobInfo
		err := reach(ctx, func(ctx context.Context, m Monitor) error {
			var err error
			if job, err = jobOf(ctx, m, fillJob); err != nil || job == nil {
				return err
			}
			switch job.Status {
			case "pending":
				return finalize(ctx, m)
			case "concluded":
				return m.Execute(ctx, "job-dismiss", map[string]string{"id": fillJob}, nil)
			}
			return nil
		})
		switch {
		case err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && time.Since(heard) < fillSilence:
			continue
		case err != nil:
			return err
		case job == nil:
			return nil
		case job.Status == "concluded" && job.Error != "":
			return fmt.Errorf("%w: %s", errJob, clip(job.Error))
		case job.Status == "concluded":
			return nil
		}
		heard = time.Now()
		progress(job.Current, job.Total)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(fillPause):
		}
	}
}

// finalize has the job end, after what lies on something was flushed. QEMU has no command
// of its own for that, and its human monitor says nothing when it went well.
func finalize(ctx context.Context, m Monitor) error {
	list, err := nodes(ctx, m)
	if err != nil {
		return err
	}
	for _, n := range list {
		if n.Driver != "qcow2" || n.Backing == "" {
			continue
		}
		if strings.ContainsAny(n.NodeName, "\"\\\n") {
			return fmt.Errorf("flush a disk: QEMU calls it %s, which its monitor cannot be told", clip(n.NodeName))
		}
		said := ""
		line := map[string]string{"command-line": `qemu-io "` + n.NodeName + `" "flush"`}
		if err := m.Execute(ctx, "human-monitor-command", line, &said); err != nil {
			return fmt.Errorf("flush a disk: %w", err)
		}
		if said != "" {
			return fmt.Errorf("flush a disk: QEMU says: %s", clip(said))
		}
	}
	return m.Execute(ctx, "job-finalize", map[string]string{"id": fillJob}, nil)
}

// jobOf returns the job of a name, or nil.
func jobOf(ctx context.Context, m Monitor, id string) (*jobInfo, error) {
	var jobs []jobInfo
	if err := m.Execute(ctx, "query-jobs", nil, &jobs); err != nil {
		return nil, err
	}
	for _, j := range jobs {
		if j.ID == id {
			return &j, nil
		}
	}
	return nil, nil
}
