// mtls is a go-spiffe program as a user writes it: a server and a client which take their identity from the Workload API,
// authenticate each other by SPIFFE ID, and go on while both rotate.
//
//	mtls server -socket unix:///path -authorize spiffe://td/client
//	mtls server -socket unix:///path -authorize spiffe://td/client -crl crl.pem
//	mtls client -socket unix:///path -authorize spiffe://td/server -address 127.0.0.1:port -every 200ms
//
// go-spiffe knows no revocation lists. With -crl the server looks into one with crypto/x509 after go-spiffe has accepted the
// peer: the file is read anew at each handshake.
//
// The client makes a new connection each time, so that every line shows the certificates of that moment.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"mutual.test/peers/report"
)

func main() {
	if len(os.Args) < 2 {
		report.Fail(errors.New("expected server or client"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	socket := flags.String("socket", "", "Workload API address, unix:///path")
	authorize := flags.String("authorize", "", "SPIFFE ID of the other side")
	address := flags.String("address", "127.0.0.1:0", "listen or dial address")
	crl := flags.String("crl", "", "PEM file of revocation lists that the server honours")
	every := flags.Duration("every", 200*time.Millisecond, "pause between two connections of the client")
	_ = flags.Parse(os.Args[2:])

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	peer, err := spiffeid.FromString(*authorize)
	if err != nil {
		report.Fail(err)
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(*socket)))
	if err != nil {
		report.Fail(err)
	}
	defer source.Close()
	go watch(ctx, source)

	switch os.Args[1] {
	case "server":
		err = serve(ctx, source, peer, *address, *crl)
	case "client":
		err = call(ctx, source, peer, *address, *every)
	default:
		err = fmt.Errorf("expected server or client, got %q", os.Args[1])
	}
	if err != nil && ctx.Err() == nil {
		report.Fail(err)
	}
}

// watch reports each X.509 update which the source was handed, the first included.
func watch(ctx context.Context, source *workloadapi.X509Source) {
	for {
		svid, err := source.GetX509SVID()
		if err != nil {
			report.Fail(err)
		}
		authorities := 0
		if bundle, err := source.GetX509BundleForTrustDomain(svid.ID.TrustDomain()); err == nil {
			authorities = len(bundle.X509Authorities())
		}
		report.Event("update", map[string]any{
			"id": svid.ID.String(), "serial": svid.Certificates[0].SerialNumber.Text(16),
			"issuer": fmt.Sprintf("%x", svid.Certificates[0].AuthorityKeyId), "authorities": authorities,
			"notAfter": svid.Certificates[0].NotAfter.Unix(),
		})
		select {
		case <-source.Updated():
		case <-ctx.Done():
			return
		}
	}
}

func serve(ctx context.Context, source *workloadapi.X509Source, peer spiffeid.ID, address, crl string) error {
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(peer))
	if crl != "" {
		spiffe := config.VerifyPeerCertificate
		config.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
			if err := spiffe(raw, chains); err != nil {
				return err
			}
			return refuseRevoked(source, peer.TrustDomain(), raw[0], crl)
		}
	}
	listener, err := tls.Listen("tcp", address, config)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	report.Event("listening", map[string]any{"address": listener.Addr().String()})
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go answer(conn.(*tls.Conn))
	}
}

func answer(conn *tls.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := conn.Handshake(); err != nil {
		report.Event("refused", map[string]any{"message": err.Error()})
		return
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		report.Event("refused", map[string]any{"message": err.Error()})
		return
	}
	id, serial := peerOf(conn.ConnectionState().PeerCertificates)
	report.Event("accepted", map[string]any{"peer": id, "serial": serial})
	_, _ = conn.Write([]byte(line))
}

func call(ctx context.Context, source *workloadapi.X509Source, peer spiffeid.ID, address string, every time.Duration) error {
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(peer))
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 1; ; n++ {
		if err := echo(config, address, n); err != nil {
			report.Event("refused", map[string]any{"message": err.Error()})
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func echo(config *tls.Config, address string, n int) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	text := fmt.Sprintf("message %d\n", n)
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	back, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if back != text {
		return fmt.Errorf("sent %q, got %q", text, back)
	}
	id, serial := peerOf(conn.ConnectionState().PeerCertificates)
	report.Event("echo", map[string]any{"peer": id, "serial": serial})
	return nil
}

func peerOf(chain []*x509.Certificate) (id string, serial string) {
	spiffe, err := x509svid.IDFromCert(chain[0])
	if err != nil {
		return "", ""
	}
	return spiffe.String(), chain[0].SerialNumber.Text(16)
}

// refuseRevoked looks for a leaf in the lists of a file; each list has to be signed by an authority of the bundle.
func refuseRevoked(source *workloadapi.X509Source, domain spiffeid.TrustDomain, raw []byte, path string) error {
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		return err
	}
	bundle, err := source.GetX509BundleForTrustDomain(domain)
	if err != nil {
		return err
	}
	rest, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(bundle.X509Authorities(), func(authority *x509.Certificate) bool {
			return list.CheckSignatureFrom(authority) == nil
		}) {
			return fmt.Errorf("list %v is signed by no authority of the bundle", list.Number)
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
				return fmt.Errorf("certificate %x is revoked by list %v", leaf.SerialNumber, list.Number)
			}
		}
	}
	return nil
}
