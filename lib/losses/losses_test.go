package losses

import (
	"strings"
	"testing"

	"github.com/edgetwin/sedna/models/wire"
)

func TestParse(t *testing.T) {
	s, err := Parse("lose", []string{"first-report", "first-empty", "offline-report", "desired-offline", "create-offline", "delete-offline", "quick-rebind", "coalesce", "drop-up=0.25", "drop-down=1"})
	want := Set{FirstReport: true, FirstEmpty: true, DesiredOffline: true, CreateOffline: true, DeleteOffline: true, QuickRebind: true, DropUp: 0.25, DropDown: 1}
	if err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = Parse("lose", nil); err != nil || s != (Set{}) {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "everything", "drop-up", "drop-up=2", "drop-down=-0.1", "drop-up=NaN", "first-report=0.5"} {
		_, err := Parse("edgelink.lose", []string{"coalesce", bad})
		if e := wire.AsError(err); err == nil || e.Code != wire.InvalidArgument || e.Field != "edgelink.lose" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	_, err = Parse("lose", []string{"everything"})
	for _, name := range Names() {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}
