// Package losses names the ways in which KubeEdge loses what travels between
// cloud and edge, as measured on it, so that edgelink can reproduce them on
// demand. Some are always there: they can be named, and change nothing.
package losses

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/edgetwin/sedna/models/wire"
)

// The losses.
const (
	FirstReport    = "first-report"    // of each property of a Device the first report leaves an entry with empty values
	FirstEmpty     = "first-empty"     // of a Device that was registered anew the first report goes up without the properties that are empty
	OfflineReport  = "offline-report"  // what is reported while the link is down is lost; always so
	DesiredOffline = "desired-offline" // a Device changed while the link was down stays old at the mapper, until its next change or a restart
	CreateOffline  = "create-offline"  // a Device made while the link was down is never registered, and its reports are refused until it is bound anew
	TwinOffline    = "twin-offline"    // a Device made while the link was down reaches the mapper, and its reports are refused until it is bound anew
	DeleteOffline  = "delete-offline"  // a Device deleted while the link was down stays known at the edge
	QuickRebind    = "quick-rebind"    // a Device taken off its node and bound again at once is only taken off
	Coalesce       = "coalesce"        // of a burst of changes the latest arrives; always so
	DropUp         = "drop-up"         // drop-up=P: a report is lost with probability P
	DropDown       = "drop-down"       // drop-down=P: a change while the link is up does not reach the mapper, with probability P
)

// Names lists all losses.
func Names() []string {
	return []string{FirstReport, FirstEmpty, OfflineReport, DesiredOffline, CreateOffline, TwinOffline, DeleteOffline, QuickRebind, Coalesce, DropUp + "=P", DropDown + "=P"}
}

// Set is the losses that are switched on. The zero value has none but those
// that are always there.
type Set struct {
	FirstReport, FirstEmpty, DesiredOffline, CreateOffline, TwinOffline, DeleteOffline, QuickRebind bool
	DropUp, DropDown                                                                                float64 // probabilities
}

// Parse reads names such as first-report and drop-up=0.2. field is the setting
// that they come from.
func Parse(field string, names []string) (Set, error) {
	var s Set
	for _, text := range names {
		name, probability, chance := strings.Cut(text, "=")
		switch name {
		case FirstReport:
			s.FirstReport = true
		case FirstEmpty:
			s.FirstEmpty = true
		case DesiredOffline:
			s.DesiredOffline = true
		case CreateOffline:
			s.CreateOffline = true
		case TwinOffline:
			s.TwinOffline = true
		case DeleteOffline:
			s.DeleteOffline = true
		case QuickRebind:
			s.QuickRebind = true
		case OfflineReport, Coalesce:
		case DropUp, DropDown:
			p, err := strconv.ParseFloat(probability, 64)
			if err != nil || !(p >= 0 && p <= 1) {
				return Set{}, wire.E(wire.InvalidArgument, field, fmt.Sprintf("expected %s=P with P from 0 to 1, got %.40q", name, text), "")
			}
			if name == DropUp {
				s.DropUp = p
			} else {
				s.DropDown = p
			}
		default:
			return Set{}, wire.E(wire.InvalidArgument, field, fmt.Sprintf("unknown loss %.40q, known are %s", text, strings.Join(Names(), ", ")), "")
		}
		if chance && !slices.Contains([]string{DropUp, DropDown}, name) {
			return Set{}, wire.E(wire.InvalidArgument, field, fmt.Sprintf("loss %s takes no value, got %.40q", name, text), "")
		}
	}
	return s, nil
}
