package client

// This file is the client itself: where the nodes are, and who calls.

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// DefaultPatience is how long a call goes on trying unless Config says otherwise.
const DefaultPatience = 10 * time.Second

// Config says where the cluster is and who calls. Only Addresses is needed.
type Config struct {
	// Addresses are URLs or host:port, tried in turn. One that answered is kept until it fails.
	Addresses []string
	// Token is the secret that every call carries. Empty: none.
	Token string
	// Product is what the calls are about. Empty: the token's only product.
	Product string
	// HTTPClient makes the requests. Nil: one with the standard library's transport. It should have no Timeout: long
	// polls and feeds take as long as they like, other attempts are bounded by this package.
	HTTPClient *http.Client
	// Patience is how long a call goes on trying after its first failure that another attempt may cure. Zero means
	// DefaultPatience; negative: each address is tried once. The context of a call bounds it too.
	Patience time.Duration
	// ReadYourWrites makes every read wait for what this client has seen or done before, whichever node it asks.
	ReadYourWrites bool
	// UserAgent names the program in the node's view. Empty: fleet-client.
	UserAgent string
}

// Client calls one product of one cluster.
type Client struct {
	config Config
	shared *shared
}

// shared is what the copies of a client that Patient makes have in common.
type shared struct {
	addresses []string
	next      atomic.Uint64 // which address the next call begins with
	index     atomic.Uint64 // the highest Fleet-Index seen
	reports   gathering
}

// New checks the addresses and makes a client. It connects to nothing yet.
func New(config Config) (*Client, error) {
	if len(config.Addresses) == 0 {
		return nil, errors.New("a client needs at least one address")
	}
	s := &shared{}
	for _, address := range config.Addresses {
		base, err := baseURL(address)
		if err != nil {
			return nil, err
		}
		s.addresses = append(s.addresses, base)
	}
	if config.HTTPClient == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = 64 // a factory reports on many jobs at once
		config.HTTPClient = &http.Client{Transport: transport}
	}
	if config.Patience == 0 {
		config.Patience = DefaultPatience
	}
	if config.UserAgent == "" {
		config.UserAgent = "fleet-client"
	}
	return &Client{config: config, shared: s}, nil
}

// baseURL makes a URL without a final slash of an address.
func baseURL(address string) (string, error) {
	text := strings.TrimSpace(address)
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("address %q is neither a URL such as http://10.0.0.1:8400 nor host:port", address)
	}
	return strings.TrimRight(text, "/"), nil
}

// Patient is the same client with another patience, as Config.Patience.
func (c *Client) Patient(patience time.Duration) *Client {
	if patience == 0 {
		patience = DefaultPatience
	}
	other := *c
	other.config.Patience = patience
	return &other
}

// Addresses are the base URLs of the nodes, in the order of Config.
func (c *Client) Addresses() []string { return append([]string(nil), c.shared.addresses...) }

// Product is the product that the calls name, empty if the token decides.
func (c *Client) Product() string { return c.config.Product }

// Index is the highest Fleet-Index that an answer has carried, zero before the first.
func (c *Client) Index() uint64 { return c.shared.index.Load() }

// saw remembers the log index that an answer reflects.
func (s *shared) saw(index uint64) {
	for {
		known := s.index.Load()
		if index <= known || s.index.CompareAndSwap(known, index) {
			return
		}
	}
}
