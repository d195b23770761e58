// Package controllers turns Sedna's objects into tasks: one file per kind. A
// controller plans which node is to do what (twin.Want), has package twin
// write it as Devices, and writes what the nodes reported into the object's
// status. Only the controller of a kind writes that kind's status.
package controllers
