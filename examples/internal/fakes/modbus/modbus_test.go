package modbus

import (
	"errors"
	"testing"
	"time"

	"github.com/simonvetter/modbus"
)

func TestDevice(t *testing.T) {
	d, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := modbus.NewClient(&modbus.ClientConfiguration{URL: "tcp://" + d.Addr(), Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Open(); err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	d.SetInput(210, 0xfff6)
	got, err := c.ReadRegisters(0, 2, modbus.INPUT_REGISTER)
	if err != nil || got[0] != 210 || int16(got[1]) != -10 {
		t.Errorf("input registers %v, %v", got, err)
	}
	began := time.Now()
	if err := c.WriteRegisters(3, []uint16{7, 8}); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteRegister(4, 9); err != nil {
		t.Fatal(err)
	}
	w, err := d.Await(t.Context(), 5*time.Second, func(w Write) bool { return w.Value == 9 })
	if err != nil || w.Address != 4 || w.At.Before(began) {
		t.Errorf("%+v, %v", w, err)
	}
	if ws := d.Writes(); len(ws) != 3 || ws[0].Address != 3 || ws[1].Value != 8 || d.Holding(3) != 7 || d.Holding(4) != 9 {
		t.Errorf("%+v", ws)
	}
	if _, err := d.Await(t.Context(), time.Millisecond, func(w Write) bool { return w.Value == 10 }); err == nil {
		t.Error("a write that was not made")
	}
	if _, err := c.ReadRegisters(Registers-1, 2, modbus.HOLDING_REGISTER); !errors.Is(err, modbus.ErrIllegalDataAddress) {
		t.Errorf("behind the last register: %v", err)
	}
	if _, err := c.ReadCoils(0, 1); !errors.Is(err, modbus.ErrIllegalFunction) {
		t.Errorf("coils: %v", err)
	}
}
