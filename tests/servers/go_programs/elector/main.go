// Command elector takes part in a client-go leader election and says on stderr when it leads.
//
// Lines: "leading" when it starts to lead, "sees ID" when it learns who leads, "stopped" when it takes
// part no more. SIGTERM and SIGINT end it: by -release it then gives the Lease away, else it leaves it
// to lapse. With words after the flags it runs these as a command while it leads, and ends with it;
// told to end, it passes SIGTERM on and waits for the command, but as client-go does it: after the
// Lease was given away.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func main() {
	var (
		kubeconfig = flag.String("kubeconfig", "", "path of the kubeconfig")
		namespace  = flag.String("namespace", "default", "namespace of the Lease")
		lease      = flag.String("lease", "", "name of the Lease")
		identity   = flag.String("identity", fmt.Sprintf("elector-%d", os.Getpid()), "identity of this candidate")
		duration   = flag.Duration("lease-duration", 15*time.Second, "how long others wait for a silent holder")
		deadline   = flag.Duration("renew-deadline", 10*time.Second, "how long the holder tries to renew")
		period     = flag.Duration("retry-period", 2*time.Second, "time between two tries")
		release    = flag.Bool("release", false, "give the Lease away at the end")
	)
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	lock, err := leaseLock(*kubeconfig, *namespace, *lease, *identity)
	if err != nil {
		fmt.Fprintln(os.Stderr, "elector:", err)
		os.Exit(1)
	}
	status := 0
	var work sync.WaitGroup
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock:            lock,
		LeaseDuration:   *duration,
		RenewDeadline:   *deadline,
		RetryPeriod:     *period,
		ReleaseOnCancel: *release,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				say("leading")
				if flag.NArg() > 0 {
					work.Add(1)
					defer work.Done()
					status = run(leading, flag.Args())
					cancel()
				}
			},
			OnNewLeader:      func(leader string) { say("sees", leader) },
			OnStoppedLeading: func() { say("stopped") },
		},
	})
	work.Wait()
	os.Exit(status)
}

func say(words ...any) {
	fmt.Fprintln(os.Stderr, words...)
}

func leaseLock(kubeconfig, namespace, name, identity string) (resourcelock.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}, nil
}

func run(leading context.Context, words []string) int {
	command := exec.CommandContext(leading, words[0], words[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	if err := command.Run(); err != nil {
		return 1
	}
	return 0
}
